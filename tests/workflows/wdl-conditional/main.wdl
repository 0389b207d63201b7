version 1.0

# Loops in loops, conditions in them, and values of whichever branch was taken.
workflow w {
  input { Array[Array[Int]] rows  Boolean loud = false }
  scatter (row in rows) {
    scatter (number in row) {
      if (number > 1) {
        call say { input: text = "number " + number }
      }
    }
    Int cells = length(row)
  }
  if (loud) { call say as shout { input: text = "LOUD" } }
  if (!loud) { call say as whisper { input: text = "quiet" } }
  output {
    Array[Array[String?]] said = say.said
    Array[String] all = select_all(flatten(say.said))
    String one = select_first([shout.said, whisper.said])
    Boolean shouted = defined(shout.said)
    Array[Int] cells_of = cells
    Array[Pair[Int, String]] crossed = cross([1, 2], ["a", "b"])
  }
}

task say {
  input { String text }
  command <<< printf '%s' '~{text}' >>>
  output { String said = read_string(stdout()) }
}
