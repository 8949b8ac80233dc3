"""An OpenAI-compatible HTTP server over the generation engine: `maypole serve`.

Starlette and uvicorn are an extra (`pip install 'maypole[serve]'`): of these modules the rest of the framework may import `source`
alone, which needs neither.
"""
