import json

with open(snakemake.output[0], "w") as target:  # noqa: F821
    json.dump({"total": sum(snakemake.params.numbers)}, target)  # noqa: F821
