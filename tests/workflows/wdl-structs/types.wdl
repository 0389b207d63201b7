version 1.1

struct Sample {
  String name
  Array[File]+ reads
  File? index
}
