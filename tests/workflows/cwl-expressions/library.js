function sorted(text) {
  return text.split(/\s+/).filter(function (word) { return word; }).sort();
}
