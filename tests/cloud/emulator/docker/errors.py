"""The exceptions of docker-py that ministack names."""


class DockerException(Exception):
    pass


class APIError(DockerException):
    pass


class NotFound(APIError):
    pass


class ImageNotFound(NotFound):
    pass
