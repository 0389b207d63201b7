rule made:
    output: "made.txt"
    shell: "printf other > {output}"
