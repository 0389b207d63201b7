workflow w {
  String name
  call say { input: name = name }
  output { String said = say.said }
}

task say {
  String name
  command { printf 'hello %s' '${name}' }
  output { String said = read_string(stdout()) }
}
