"""The import paths of azureml-contrib-services."""

from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml.contrib.services.aml_response import AMLResponse
from azureml_inference_server_http.api.aml_response import AMLResponse as Same


def init():
    pass


@rawhttp
def run(request):
    return AMLResponse("%s %s" % (request.method, AMLResponse is Same), 200)
