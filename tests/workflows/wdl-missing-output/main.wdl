version 1.0

task t {
  command <<< echo made > made >>>
  output { File made = "made"  File other = "never made" }
}
