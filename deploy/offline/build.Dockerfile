# Where the image of Hikyaku is built: Python, and the wheels that deploy/Dockerfile looks for.
FROM hikyaku-python:offline
COPY wheels /wheels
