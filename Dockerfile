# The course for a classroom, on the processor: see compose.yaml, which starts it.
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 learner && install --directory --owner=1000 /course
USER 1000
WORKDIR /course
RUN mkdir data notebooks

# What the packages depend on comes first, so that a changed notebook does not install them again.
COPY --chown=1000 pyproject.toml README.md LICENSE ./
COPY --chown=1000 tools tools
COPY --chown=1000 data/runs data/runs
COPY --chown=1000 vgg_course vgg_course
# A container starts anew each time, so Python's compiled files are made here.
RUN VGG_COURSE_TORCH=cpu UV_COMPILE_BYTECODE=1 python tools/environment.py lab && rm -rf /home/learner/.cache
# What the README leads to:
COPY --chown=1000 GLOSSARY.md CONTRIBUTING.md CHANGELOG.md CITATION.cff ./
COPY --chown=1000 data/README.md data/
COPY --chown=1000 docs docs
COPY --chown=1000 notebooks notebooks

EXPOSE 8888 8098
CMD [".venv/bin/python", "tools/lab.py", "--ip=0.0.0.0"]
