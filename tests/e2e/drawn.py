"""How many points the first plot of a visdom page has: what these tests wait for."""

# calcdata: what plotly has drawn; plot.data is only what it was given.
POINTS = "() => document.querySelector('.js-plotly-plot')?.calcdata?.[0].length ?? 0"
