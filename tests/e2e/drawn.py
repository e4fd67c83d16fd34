"""What tests in a browser wait for: the points in the first plot of a visdom page, and how long for anything."""

# calcdata: what plotly has drawn; plot.data is only what it was given.
POINTS = "() => document.querySelector('.js-plotly-plot')?.calcdata?.[0].length ?? 0"
# Milliseconds, for the first page of a cold JupyterLab on a busy machine; Playwright's own are 30,000.
PATIENCE = 120_000
