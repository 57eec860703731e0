"""A null nginx: reads the body, answers with always the same small JSON. The floor of a server that is not Python.

nginx throws a body away without looking at it when it answers by itself, but it reads it to its end first.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

ANSWER = '{"label":[0],"probabilities":[[0.9816,0.0184,0.0]]}'
CONFIGURATION = """
daemon off;
worker_processes 1;
pid %(folder)s/nginx.pid;
error_log stderr error;
events { worker_connections 2048; }
http {
    access_log off;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_temp_path %(folder)s/body;
    proxy_temp_path %(folder)s/proxy;
    fastcgi_temp_path %(folder)s/fastcgi;
    uwsgi_temp_path %(folder)s/uwsgi;
    scgi_temp_path %(folder)s/scgi;
    server {
        listen 127.0.0.1:%(port)d backlog=1024;
        location / { default_type application/json; return 200 '%(answer)s'; }
    }
}
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--port", type=int, required=True)
    nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    if nginx is None:
        sys.exit("nginx is missing: make bench-apt")
    folder = Path.cwd()
    file = folder / "nginx.conf"
    places = {"folder": folder, "port": arguments.parse_args().port, "answer": ANSWER}
    file.write_text(CONFIGURATION % places)
    os.execv(nginx, [nginx, "-e", "stderr", "-p", str(folder), "-c", str(file)])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
