# Reads FASTA; prints name, length, A, C, G, T and everything else, separated by tabs.
function flush_record() {
    if (name == "") return
    rest = total - base["A"] - base["C"] - base["G"] - base["T"]
    printf "%s\t%d\t%d\t%d\t%d\t%d\t%d\n", name, total, base["A"], base["C"], base["G"], base["T"], rest
}
BEGIN { split("A C G T", letters, " ") }
/^>/ {
    flush_record()
    name = substr($1, 2)
    total = 0
    for (i in letters) base[letters[i]] = 0
    next
}
{
    line = toupper($0)
    total += length(line)
    for (i in letters) base[letters[i]] += gsub(letters[i], "", line)
}
END { flush_record() }
