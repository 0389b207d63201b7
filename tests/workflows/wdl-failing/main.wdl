version 1.0

# One of three fails; what needs all of them is not run.
workflow w {
  scatter (number in [1, 2, 3]) { call check { input: number = number } }
  call never { input: numbers = check.checked }
}

task check {
  input { Int number }
  command <<< echo 'checks ~{number}' >&2; if [ '~{number}' = 2 ]; then exit 42; fi >>>
  output { Int checked = number }
}

task never {
  input { Array[Int] numbers }
  command <<< echo never >>>
}
