version 1.0

task double {
  input { File text }
  command <<< cat '~{text}' '~{text}' > doubled; wc -c < doubled >>>
  output { File doubled = "doubled"  Int bytes = read_int(stdout()) }
}
