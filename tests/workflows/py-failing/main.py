"""A job that fails, after one that left a file."""

import pathlib

from toil.common import Toil
from toil.job import Job


def good(job, folder):
    pathlib.Path(folder, "half.txt").write_text("half")
    job.addFollowOnJobFn(bad)


def bad(job):
    raise RuntimeError("there is no second half")


if __name__ == "__main__":
    options = Job.Runner.getDefaultArgumentParser().parse_args()
    with Toil(options) as toil:
        toil.start(Job.wrapJobFn(good, str(pathlib.Path.cwd())))
