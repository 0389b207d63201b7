version 1.1

import "types.wdl" as types

struct Report {
  File text
  Map[String, Int] lengths
  Array[Pair[String, File]] parts
  Sample sample
}

# Structs in structs, maps, pairs and optional values, with files at every depth.
workflow w {
  input {
    Sample sample
    Map[String, Array[Int]] numbers
    String? maybe
  }
  scatter (read in sample.reads) {
    call measure { input: text = read }
  }
  scatter (entry in as_pairs(numbers)) {
    Pair[String, Int] count = (entry.left, length(entry.right))
  }
  output {
    Report report = Report {
      text: measure.copy[0],
      lengths: as_map(count),
      parts: zip(["first", "second"], measure.copy),
      sample: sample
    }
    Map[String, Pair[Int, File]] by_name = {"one": (measure.bytes[0], measure.copy[0])}
    String? maybe_not = maybe
    File? no_file = sample.index
  }
}

task measure {
  input { File text }
  command <<< wc -c < "~{text}" | tr -d ' ' > bytes; cp "~{text}" "copy of ~{basename(text)}" >>>
  output {
    Int bytes = read_int("bytes")
    File copy = "copy of ~{basename(text)}"
  }
}
