rule common:
    output: "common.txt"
    shell: "printf common > {output}"
