"""What the request looks like to a raw run()."""

from azureml_inference_server_http.api.aml_request import rawhttp

READ = {
    "method": lambda r: r.method,
    "args": lambda r: sorted((name, r.args.getlist(name)) for name in r.args),
    "args-dict": lambda r: [dict(r.args), r.args.to_dict(flat=False), r.args.get("n", type=int), r.args.get("a", 7)],
    "headers": lambda r: sorted((name, value) for name, value in r.headers.items()),
    "header": lambda r: [r.headers.get("x-one"), "X-ONE" in r.headers, r.headers.get("nope", "d"), len(r.headers)],
    "data": lambda r: r.data.decode("latin-1"),
    "get_data": lambda r: r.get_data().decode("latin-1"),
    "get_data-text": lambda r: r.get_data(as_text=True),
    "get_data-twice": lambda r: [len(r.get_data(cache=False)), len(r.get_data())],
    "json": lambda r: r.json,
    "get_json": lambda r: r.get_json(),
    "get_json-force": lambda r: r.get_json(force=True),
    "get_json-silent": lambda r: r.get_json(silent=True),
    "form": lambda r: sorted((name, r.form.getlist(name)) for name in r.form),
    "form-get": lambda r: [r.form.get("a"), r.form.get("none")],
    "files": lambda r: sorted((n, f.filename, f.content_type, f.read().decode("latin-1")) for n, f in r.files.items()),
    "values": lambda r: sorted((name, r.values.get(name)) for name in r.values),
    "path": lambda r: r.path,
    "full_path": lambda r: r.full_path,
    "url": lambda r: r.url,
    "base_url": lambda r: r.base_url,
    "host": lambda r: r.host,
    "host_url": lambda r: r.host_url,
    "scheme": lambda r: r.scheme,
    "is_secure": lambda r: r.is_secure,
    "query_string": lambda r: r.query_string.decode("latin-1"),
    "cookies": lambda r: sorted(r.cookies.items()),
    "stream": lambda r: r.stream.read().decode("latin-1"),
    "stream-part": lambda r: [r.stream.read(2).decode("latin-1"), r.stream.read().decode("latin-1")],
    "content_type": lambda r: r.content_type,
    "mimetype": lambda r: [r.mimetype, dict(r.mimetype_params)],
    "content_length": lambda r: r.content_length,
    "remote_addr": lambda r: r.remote_addr,
    "is_json": lambda r: r.is_json,
}


def init():
    pass


@rawhttp
def run(request):
    return [READ[name](request) for name in request.headers["x-read"].split()]
