version 1.1

# What reads and writes files, globs, and what places text in commands.
workflow w {
  input { File table }
  Array[Array[String]] rows = read_tsv(table)
  call work { input: rows = rows, options = {"key": "a 'quoted' value"}, table = table }
  output {
    Array[File] parts = work.parts
    Array[String] names = work.names
    Map[String, String] map = work.map
    Float total = work.total
    String joined = sep(", ", work.names)
    Int rows_of = length(rows)
    Map[String, String] from_json = read_json(work.json)
    String replaced = sub("chr1:2-3", "[:-]", "_")
  }
}

task work {
  input { Array[Array[String]] rows  Map[String, String] options  File table }
  command <<<
    set -euo pipefail
    awk '{ sum += $2 } END { print sum }' '~{write_tsv(rows)}' > total
    cut -f 1 '~{table}' > names
    while read -r name; do echo "$name" > "part-$name.txt"; done < names
    cp '~{write_map(options)}' map
    cp '~{write_json(options)}' json
  >>>
  output {
    Array[File] parts = glob("part-*.txt")
    Array[String] names = read_lines("names")
    Map[String, String] map = read_map("map")
    Float total = read_float("total")
    File json = "json"
  }
}
