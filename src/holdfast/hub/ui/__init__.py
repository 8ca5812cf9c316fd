"""The hub's pages for people: rendered here, readable without JavaScript, and each with a twin in JSON.

Nothing of it costs a hub that nobody looks at: the modules that make pages, and Jinja with them, are imported when the
first page is asked for. What a page shows comes from the same places as the API's answers, and under the same rights.
"""
