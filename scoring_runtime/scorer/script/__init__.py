"""The script engine: a user's score.py, in the user's own interpreter.

loader    finds and loads the script, decides once how run() is called, calls init()
call      answers requests: body to arguments, run() under its time limit, result to reply
request   what a request looks like to user code: query, headers, request object
form      form bodies, urlencoded and multipart
response  what user code may return besides plain values: AMLResponse and Flask's responses
encode    plain values as JSON
schema    what the user's inference-schema knows about run()
log       log lines, and prints as log lines
aliases   the modules of the incumbent that user code imports from
"""
