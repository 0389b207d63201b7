"""Jobs that are made while others run, promises between them, files in the job store, and one that is exported."""

import json
import pathlib

from toil.common import Toil
from toil.job import Job

from helpers import square


def root(job, numbers):
    squares = [job.addChildJobFn(one, number).rv() for number in numbers]
    return job.addFollowOnJobFn(total, squares).rv()


def one(job, number):
    with job.fileStore.writeGlobalFileStream() as (stream, file_id):
        stream.write(str(square(number)).encode())
    return file_id


def total(job, files):
    texts = []
    for file in files:
        with job.fileStore.readGlobalFileStream(file) as stream:
            texts.append(stream.read().decode())
    path = pathlib.Path(job.fileStore.getLocalTempDir()) / "total"
    path.write_text("+".join(texts) + "=" + str(sum(map(int, texts))) + "\n")
    return job.fileStore.writeGlobalFile(str(path))


if __name__ == "__main__":
    options = Job.Runner.getDefaultArgumentParser().parse_args()
    params = json.load(open("wes_inputs.json"))
    with Toil(options) as toil:
        made = toil.start(Job.wrapJobFn(root, params["numbers"]))
        pathlib.Path("out").mkdir()
        toil.exportFile(made, pathlib.Path("out/total.txt").absolute().as_uri())
