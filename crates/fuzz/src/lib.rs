//! Tries a property on the inputs that are kept for it in `corpus`, and on changed ones.
//!
//! A property is a function of bytes that panics when something does not hold. Each crate has its
//! own in a module `fuzz`, compiled for its tests and for `make fuzz` alone. Its tests try the
//! corpus and some changes of it ([`check`]); `make fuzz` lets libFuzzer look for inputs that reach
//! new code, for as long as it is given.

use std::{fs, path::PathBuf};

use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, FileFailurePersistence, TestRunner},
};

/// Panics when something does not hold for an input.
pub type Property = fn(&[u8]);

/// The longest input that is made, in bytes, as of `make fuzz`.
const MAX_BYTES: usize = 4096;

/// The inputs that are kept for a target, by the names of their files, in order.
///
/// # Panics
/// When there are none: a target without a corpus tests nothing.
#[must_use]
pub fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}: put inputs there", folder.display()));
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("a folder can be listed");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("an input can be read"))
        })
        .collect();
    assert!(!inputs.is_empty(), "{}: put inputs there", folder.display());
    inputs.sort();
    inputs
}

/// [`check`]s every property, each by the name of its target.
///
/// # Panics
/// As [`check`].
pub fn check_all(targets: &[(&str, Property)]) {
    for (target, property) in targets {
        check(target, *property);
    }
}

/// Tries `property` on every input of the target's corpus, and then on `PROPTEST_CASES` (256)
/// changes of them.
///
/// # Panics
/// When the property does: the file, or the smallest change that was found, is printed.
pub fn check(target: &str, property: Property) {
    let corpus = corpus(target);
    for (name, input) in &corpus {
        println!("corpus/{target}/{name}");
        property(input);
    }
    let inputs: Vec<_> = corpus.into_iter().map(|(_, input)| input).collect();
    let config = Config {
        // What is found belongs into the corpus.
        failure_persistence: None::<Box<FileFailurePersistence>>.map(|none| none as _),
        ..Config::default()
    };
    let found = TestRunner::new(config).run(&changed(inputs), |input| {
        property(&input);
        Ok(())
    });
    if let Err(found) = found {
        panic!(
            "{target}: {found}\nput the input into corpus/{target}, under a name that says what was wrong"
        );
    }
}

/// One change of an input.
#[derive(Clone, Debug)]
enum Change {
    /// Bytes, in the place of as many as the number says.
    Put(Index, usize, Vec<u8>),
    /// A piece of the input once more, elsewhere.
    Repeat(Index, Index, Index),
    /// What another input has from some place on.
    Splice(Index, Vec<u8>, Index),
}

fn changed(inputs: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    // Bytes that mean something in one of the formats, more often than others.
    let meant =
        prop::sample::select(&b"/.%\\\0\r\n\t \"'{}[]()<>=:;,-_+*?#&$~@!|0129aAzZ\x7f\xff"[..]);
    let byte = prop_oneof![3 => meant, 1 => any::<u8>()];
    let input = prop::sample::select(inputs);
    let change = prop_oneof![
        4 => (any::<Index>(), 0usize..4, vec(byte, 0..5))
            .prop_map(|(at, instead, bytes)| Change::Put(at, instead, bytes)),
        1 => any::<(Index, Index, Index)>()
            .prop_map(|(from, to, at)| Change::Repeat(from, to, at)),
        1 => (any::<Index>(), input.clone(), any::<Index>())
            .prop_map(|(at, other, from)| Change::Splice(at, other, from)),
    ];
    (input, vec(change, 0..6)).prop_map(|(mut input, changes)| {
        for change in changes {
            change.make(&mut input);
        }
        input.truncate(MAX_BYTES);
        input
    })
}

impl Change {
    fn make(self, input: &mut Vec<u8>) {
        let places = input.len() + 1;
        match self {
            Self::Put(at, instead, bytes) => {
                let at = at.index(places);
                let end = input.len().min(at + instead);
                input.splice(at..end, bytes);
            }
            Self::Repeat(from, to, at) => {
                let (from, to) = (from.index(places), to.index(places));
                let piece = input[from.min(to)..from.max(to)].to_vec();
                let at = at.index(places);
                input.splice(at..at, piece);
            }
            Self::Splice(at, other, from) => {
                input.truncate(at.index(places));
                input.extend_from_slice(&other[from.index(other.len() + 1)..]);
            }
        }
    }
}
