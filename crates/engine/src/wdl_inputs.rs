//! Which of a WDL workflow's inputs are files: their values are strings like any other, and only
//! the documents tell.
//!
//! Declarations are found, nothing is evaluated: a type, which begins with a capital letter, and a
//! name behind it (WDL 1.1, "Declarations"; in draft-2 those of a workflow's body are its inputs).

use std::{
    collections::{HashMap, HashSet},
    io::Read as _,
    path::{Component, Path, PathBuf},
};

use crate::reachable;

/// The largest document that is read, in bytes.
const MAX_DOCUMENT: u64 = 4 << 20;

/// The most documents of a workflow that are read.
const MAX_DOCUMENTS: usize = 1000;

/// How deep types and calls are followed.
const MAX_DEPTH: usize = 50;

/// A type, as far as files are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    File,
    Directory,
    Array(Box<Type>),
    Map(Box<Type>, Box<Type>),
    Pair(Box<Type>, Box<Type>),
    /// A struct, or a type without files.
    Named(String),
}

/// A workflow or task.
#[derive(Debug, Default)]
struct Callable {
    name: String,
    inputs: HashMap<String, Type>,
    /// What it calls, by the call's name: namespace and name.
    calls: HashMap<String, Vec<String>>,
}

/// One document.
#[derive(Debug, Default)]
struct Document {
    structs: HashMap<String, HashMap<String, Type>>,
    workflow: Option<Callable>,
    tasks: HashMap<String, Callable>,
    /// The documents that it imports, by namespace.
    imports: HashMap<String, PathBuf>,
    /// Other names of imported structs: the name there, then here.
    aliases: Vec<(String, String)>,
}

/// The documents of a workflow.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    main: PathBuf,
    documents: HashMap<PathBuf, Document>,
    structs: HashMap<String, HashMap<String, Type>>,
}

impl Inputs {
    /// Reads the document at `main`, below `root`, and those below `root` that it imports. What
    /// cannot be read is the engine's to tell.
    pub(crate) fn read(root: &Path, main: &str) -> Self {
        let main = normal(&root.join(main));
        let mut inputs = Self { main: main.clone(), ..Self::default() };
        let mut waiting = vec![main];
        let mut seen = HashSet::new();
        while let Some(path) = waiting.pop() {
            if !path.starts_with(root) || seen.len() >= MAX_DOCUMENTS || !seen.insert(path.clone())
            {
                continue;
            }
            let Some(text) = content(&path) else { continue };
            let folder = path.parent().unwrap_or(root).to_owned();
            let document = Parser::new(&text, &folder).document();
            waiting.extend(document.imports.values().cloned());
            inputs.structs.extend(document.structs.clone());
            inputs.documents.insert(path, document);
        }
        let aliases: Vec<_> =
            inputs.documents.values().flat_map(|document| document.aliases.clone()).collect();
        for (there, here) in aliases {
            if let Some(members) = inputs.structs.get(&there).cloned() {
                inputs.structs.insert(here, members);
            }
        }
        inputs
    }

    /// The type of an input by its key in `workflow_params`: `workflow.input`, `input`, or
    /// `workflow.call.input`.
    pub(crate) fn of_key(&self, key: &str) -> Option<&Type> {
        let document = self.documents.get(&self.main)?;
        let path: Vec<_> = key.split('.').collect();
        if let Some(workflow) = &document.workflow {
            let inside = match path.split_first() {
                Some((first, rest)) if *first == workflow.name && !rest.is_empty() => rest,
                _ => &path[..],
            };
            return self.of_path(document, workflow, inside, 0);
        }
        match path[..] {
            [task, input] => document.tasks.get(task)?.inputs.get(input),
            [input] => document.tasks.values().find_map(|task| task.inputs.get(input)),
            _ => None,
        }
    }

    /// The members of a struct.
    pub(crate) fn members(&self, name: &str) -> Option<&HashMap<String, Type>> {
        self.structs.get(name)
    }

    fn of_path<'a>(
        &'a self,
        document: &'a Document,
        callable: &'a Callable,
        path: &[&str],
        depth: usize,
    ) -> Option<&'a Type> {
        let (first, rest) = path.split_first()?;
        if rest.is_empty() {
            return callable.inputs.get(*first);
        }
        let called = callable.calls.get(*first).filter(|_| depth < MAX_DEPTH)?;
        let (name, namespaces) = called.split_last()?;
        let mut there = document;
        for namespace in namespaces {
            there = self.documents.get(there.imports.get(namespace)?)?;
        }
        let found = there
            .tasks
            .get(name)
            .or_else(|| there.workflow.as_ref().filter(|workflow| workflow.name == *name))?;
        self.of_path(there, found, rest, depth + 1)
    }
}

fn content(path: &Path) -> Option<String> {
    let mut text = String::new();
    reachable::open(path).ok()?.take(MAX_DOCUMENT).read_to_string(&mut text).ok()?;
    Some(text)
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

/// A word of a document; what is in strings and commands is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// A literal string, as it is written; with placeholders in it, it is of no use here.
    Text(String),
    Sign(char),
}

impl Token {
    fn is(&self, sign: char) -> bool {
        *self == Self::Sign(sign)
    }

    fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            _ => None,
        }
    }
}

struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    folder: &'a Path,
}

/// Words that stand before a name and are no types, or behind a type and are no names.
const KEYWORDS: [&str; 12] = [
    "as", "call", "else", "if", "import", "in", "input", "object", "output", "scatter", "then",
    "after",
];

impl<'a> Parser<'a> {
    fn new(text: &str, folder: &'a Path) -> Self {
        Self { tokens: tokens(text), at: 0, folder }
    }

    fn peek(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead)
    }

    fn word(&self, ahead: usize) -> Option<&str> {
        self.peek(ahead)?.word()
    }

    fn document(mut self) -> Document {
        let mut document = Document::default();
        while let Some(word) = self.peek(0).cloned() {
            self.at += 1;
            match word.word() {
                Some("import") => self.import(&mut document),
                Some(kind @ ("struct" | "task" | "workflow")) => {
                    let Some(name) = self.word(0).map(str::to_owned) else { continue };
                    self.at += 1;
                    if !self.peek(0).is_some_and(|token| token.is('{')) {
                        continue;
                    }
                    self.at += 1;
                    let mut found = Callable { name: name.clone(), ..Callable::default() };
                    self.body(&mut found);
                    match kind {
                        "struct" => {
                            document.structs.insert(name, found.inputs);
                        }
                        "task" => {
                            document.tasks.insert(name, found);
                        }
                        _ => document.workflow = Some(found),
                    }
                }
                _ => {}
            }
        }
        document
    }

    fn import(&mut self, document: &mut Document) {
        let Some(Token::Text(url)) = self.peek(0).cloned() else { return };
        self.at += 1;
        let stem = url.rsplit('/').next().unwrap_or(&url);
        let mut namespace = stem.strip_suffix(".wdl").unwrap_or(stem).to_owned();
        if self.word(0) == Some("as")
            && let Some(name) = self.word(1)
        {
            namespace = name.to_owned();
            self.at += 2;
        }
        while self.word(0) == Some("alias") {
            if let (Some(there), Some("as"), Some(here)) =
                (self.word(1), self.word(2), self.word(3))
            {
                document.aliases.push((there.to_owned(), here.to_owned()));
            }
            self.at += 4;
        }
        if !url.contains("://") && !url.starts_with('/') {
            document.imports.insert(namespace, normal(&self.folder.join(url)));
        }
    }

    /// Reads to the `}` that ends a body.
    fn body(&mut self, found: &mut Callable) {
        let mut depth = 1;
        while let Some(token) = self.peek(0).cloned() {
            let opens = self.peek(1).is_some_and(|next| next.is('{'));
            match &token {
                Token::Sign('{') => depth += 1,
                Token::Sign('}') => {
                    depth -= 1;
                    if depth == 0 {
                        self.at += 1;
                        return;
                    }
                }
                Token::Word(word)
                    if opens
                        && matches!(
                            word.as_str(),
                            "output"
                                | "runtime"
                                | "meta"
                                | "parameter_meta"
                                | "requirements"
                                | "hints"
                        ) =>
                {
                    self.at += 1;
                    self.skip_block();
                    continue;
                }
                Token::Word(word) if word == "call" => {
                    self.at += 1;
                    self.call(found);
                    continue;
                }
                Token::Word(_) => {
                    if let Some((kind, name, next)) = self.declaration() {
                        found.inputs.entry(name).or_insert(kind);
                        self.at = next;
                        continue;
                    }
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    fn skip_block(&mut self) {
        let mut depth = 0;
        while let Some(token) = self.peek(0) {
            if token.is('{') {
                depth += 1;
            } else if token.is('}') {
                depth -= 1;
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }

    /// Reads `namespace.name`, perhaps `as name`, and passes over the call's own inputs.
    fn call(&mut self, found: &mut Callable) {
        let mut called = Vec::new();
        while let Some(word) = self.word(0).map(str::to_owned) {
            called.push(word);
            self.at += 1;
            if !self.peek(0).is_some_and(|token| token.is('.')) {
                break;
            }
            self.at += 1;
        }
        let Some(mut name) = called.last().cloned() else { return };
        if self.word(0) == Some("as")
            && let Some(other) = self.word(1)
        {
            name = other.to_owned();
            self.at += 2;
        }
        while self.word(0) == Some("after") {
            self.at += 2;
        }
        if self.peek(0).is_some_and(|token| token.is('{')) {
            self.skip_block();
        }
        found.calls.insert(name, called);
    }

    /// A type with a name behind it, and where that ends.
    fn declaration(&self) -> Option<(Type, String, usize)> {
        let (kind, mut at) = self.type_at(self.at, 0)?;
        while self.tokens.get(at).is_some_and(|token| token.is('?') || token.is('+')) {
            at += 1;
        }
        let name = self.tokens.get(at)?.word().filter(|name| !KEYWORDS.contains(name))?;
        Some((kind, name.to_owned(), at + 1))
    }

    fn type_at(&self, at: usize, depth: usize) -> Option<(Type, usize)> {
        let name = self.tokens.get(at)?.word()?;
        if !name.starts_with(|first: char| first.is_ascii_uppercase()) || depth > MAX_DEPTH {
            return None;
        }
        let mut parameters = Vec::new();
        let mut at = at + 1;
        if self.tokens.get(at)?.is('[') {
            loop {
                let (parameter, mut next) = self.type_at(at + 1, depth + 1)?;
                while self.tokens.get(next).is_some_and(|token| token.is('?') || token.is('+')) {
                    next += 1;
                }
                parameters.push(parameter);
                at = next;
                match self.tokens.get(at)? {
                    Token::Sign(',') => {}
                    Token::Sign(']') => break,
                    _ => return None,
                }
            }
            at += 1;
        }
        let mut parameters = parameters.into_iter();
        let mut next = || Some(Box::new(parameters.next()?));
        let kind = match name {
            "File" => Type::File,
            "Directory" => Type::Directory,
            "Array" => Type::Array(next()?),
            "Map" => Type::Map(next()?, next()?),
            "Pair" => Type::Pair(next()?, next()?),
            other => Type::Named(other.to_owned()),
        };
        Some((kind, at))
    }
}

/// The words of a document, without comments and commands.
fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first.is_whitespace() {
            rest = rest.trim_start();
        } else if first == '#' {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if first == '"' || first == '\'' {
            let end = end_of_string(rest, first);
            found.push(Token::Text(rest[1..end].to_owned()));
            rest = rest.get(end + 1..).unwrap_or("");
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end =
                rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let word = &rest[..end];
            rest = &rest[end..];
            match (word, rest.trim_start()) {
                ("command", after) if after.starts_with("<<<") => {
                    rest = after.split_once(">>>").map_or("", |(_, rest)| rest);
                }
                ("command", after) if after.starts_with('{') => rest = after_braces(after),
                _ => found.push(Token::Word(word.to_owned())),
            }
        } else {
            found.push(Token::Sign(first));
            rest = &rest[first.len_utf8()..];
        }
    }
    found
}

/// Where the string that `text` begins with ends: quotes in its placeholders are their own.
fn end_of_string(text: &str, quote: char) -> usize {
    let mut depth = 0_usize;
    let mut escaped = false;
    let mut before = ' ';
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '{' if depth > 0 || matches!(before, '~' | '$') => depth += 1,
            '}' if depth > 0 => depth -= 1,
            c if depth == 0 && (c == quote || c == '\n') => return at,
            _ => {}
        }
        before = c;
    }
    text.len()
}

/// What follows the braces that `text` begins with.
fn after_braces(text: &str) -> &str {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return &text[at + 1..];
                }
            }
            _ => {}
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn inputs(documents: &[(&str, &str)]) -> Inputs {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in documents {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        Inputs::read(folder.path(), documents[0].0)
    }

    const MAIN: &str = r#"version 1.0
import "lib/tasks.wdl" as lib alias Sample as S
import "https://example.org/other.wdl"
# File comment
struct Sample { String id  Array[File]+ reads  File? index }
workflow w {
  input {
    File one
    File? maybe = "x" # File no
    Array[Array[File?]] nested
    Map[String, Pair[File, Int]] pairs
    S sample
    String name = "it's ~{if true then "File a" else 'b'} {"
    Int n = if defined(maybe) then size(one) else 3
    Object any
    Directory folder
  }
  if (n > 1) {
    scatter (r in nested) { call lib.count as counted after x { input: f = one, name = name } }
  }
  call local
  call lib.inner
  output { File result = counted.out }
  meta { description: "File meta" }
}
task local {
  input { File data }
  command { awk '{print $1; don't}' ~{data} }
  output { File made = "x" }
  runtime { docker: "x" }
}
"#;
    const LIB: &str = r#"version 1.0
struct Other { File f }
task count {
  input { File f  String name  File? extra }
  command <<< echo "} File fake" >>>
  output { File out = stdout() }
}
workflow inner { input { Other other } call count }
"#;

    fn read() -> Inputs {
        inputs(&[("main.wdl", MAIN), ("lib/tasks.wdl", LIB)])
    }

    #[test]
    fn files_are_told_from_strings_by_their_declarations() {
        let inputs = read();
        let file = || Box::new(Type::File);
        for (key, expected) in [
            ("w.one", Some(Type::File)),
            ("one", Some(Type::File)),
            ("w.maybe", Some(Type::File)),
            ("w.nested", Some(Type::Array(Box::new(Type::Array(file()))))),
            (
                "w.pairs",
                Some(Type::Map(
                    Box::new(Type::Named("String".into())),
                    Box::new(Type::Pair(file(), Box::new(Type::Named("Int".into())))),
                )),
            ),
            ("w.sample", Some(Type::Named("S".into()))),
            ("w.name", Some(Type::Named("String".into()))),
            ("w.folder", Some(Type::Directory)),
            ("w.counted.extra", Some(Type::File)),
            ("w.local.data", Some(Type::File)),
            ("w.inner.other", Some(Type::Named("Other".into()))),
            ("w.inner.count.extra", Some(Type::File)),
            ("w.result", None),
            ("w.description", None),
            ("w.fake", None),
            ("w.no", None),
            ("w.lib.count.f", None),
            ("w", None),
            ("", None),
        ] {
            assert_eq!(inputs.of_key(key), expected.as_ref(), "{key}");
        }
        assert_eq!(inputs.members("S").expect("a struct")["reads"], Type::Array(file()));
        assert_eq!(inputs.members("Other").expect("a struct")["f"], Type::File);
    }

    #[test]
    fn a_task_that_is_run_alone_and_draft_2_have_inputs_too() {
        let task = inputs(&[("t.wdl", "version 1.0\ntask t { input { File f } command {} }")]);
        assert_eq!(task.of_key("t.f"), Some(&Type::File));
        assert_eq!(task.of_key("f"), Some(&Type::File));
        let draft = "workflow w { File f  Array[String] names\n call t { input: f = f } }\n\
                     task t { File f  String s = 'a' command { cat ${f} } }";
        let draft = inputs(&[("d.wdl", draft)]);
        assert_eq!(draft.of_key("w.f"), Some(&Type::File));
        assert_eq!(draft.of_key("w.t.f"), Some(&Type::File));
    }

    #[test]
    fn what_is_broken_or_outside_is_left_to_the_engine() {
        for text in
            ["", "workflow w {", "workflow w { input { File", "import \"", "\u{e9}{{{", "File \"~{"]
        {
            assert_eq!(inputs(&[("m.wdl", text)]).of_key("w.f"), None, "{text}");
        }
        let outside = "import \"../../etc/passwd\" as p\nworkflow w { call p.x }";
        assert_eq!(inputs(&[("m.wdl", outside)]).of_key("w.x.f"), None);
        assert_eq!(Inputs::read(Path::new("/nowhere"), "m.wdl").of_key("w.f"), None);
    }
}
