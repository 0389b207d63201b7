//! Saves an engine's state.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    io::{self, Read as _},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use sha1::{Digest as _, Sha1};
use stepwes_core::{
    RunId, keys,
    saved::{MAX_MANIFEST_BYTES, Manifest, SavedFile, SavedFolder, SavedLink},
};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::{
    SMALL, Saved, Staged,
    look::{Look, Version, look},
};
use crate::{
    bucket::{Bucket, Fault},
    reachable,
};

/// The pause before the first save, and the longest between two: it grows, so that a short run costs
/// little and a long one loses little.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// A pause is at least so many times as long as the save before it took, so that saving never takes
/// more than a tenth of the time.
const REST: u32 = 9;

/// How often a save looks for a moment at which nothing changes before it waits for the next one.
const LOOKS: u32 = 5;

/// The pause between two such looks.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How large such a piece gets, in bytes. It is held in memory.
const PACK: usize = 8 * 1024 * 1024;

/// A pack less than this part of which is still of use is packed anew with what is.
const SPARSE: u64 = 4;

/// Where the content of one version of a file is.
#[derive(Clone, Copy, Debug)]
struct Kept {
    version: Version,
    piece: u64,
    offset: u64,
}

/// Why a state is not saved.
#[derive(Debug, thiserror::Error)]
enum Unsaved {
    #[error("{0}")]
    Store(#[from] Fault),
    #[error("{0}")]
    Local(#[from] io::Error),
    #[error("it is larger than the {0} bytes that an attempt may store (STEPWES_STATE_GIB)")]
    TooLarge(u64),
}

/// Saves the state of one attempt's engine.
pub(crate) struct Keeper {
    bucket: Bucket,
    run: RunId,
    attempt: u32,
    engine: &'static str,
    root: PathBuf,
    saved: Saved,
    staged: Arc<Staged>,
    /// What is in S3, by its path.
    kept: BTreeMap<String, Kept>,
    /// The sizes of the packs, by their numbers.
    packs: HashMap<u64, u64>,
    next: u64,
    stored: u64,
    limit: u64,
    /// The hash of the manifest that was written last.
    written: Option<Vec<u8>>,
}

impl Keeper {
    /// For the engine of that name, whose work folder is `root`; it saves nothing of one that goes on
    /// from nothing. `limit` is the most that is stored in all, in bytes; 0 stores nothing.
    pub(crate) fn new(
        bucket: Bucket,
        (run, attempt): (RunId, u32),
        engine: &'static str,
        root: PathBuf,
        saved: Option<Saved>,
        staged: Staged,
        limit: u64,
    ) -> Self {
        let nothing = || Saved { folders: Vec::new(), left_out: |_| true, is_guard: |_| false };
        let limit = if saved.is_some() { limit } else { 0 };
        let saved = saved.unwrap_or_else(nothing);
        Self {
            bucket,
            run,
            attempt,
            engine,
            root,
            saved,
            staged: Arc::new(staged),
            kept: BTreeMap::new(),
            packs: HashMap::new(),
            next: 0,
            stored: 0,
            limit,
            written: None,
        }
    }

    /// Saves what changes for as long as it is polled. Dropped at any point, it has lost nothing but
    /// the time.
    pub(crate) async fn follow(&mut self) -> Infallible {
        let mut pause = PAUSES.0;
        while self.limit > 0 {
            tokio::time::sleep(pause).await;
            let begun = Instant::now();
            self.save(false).await;
            pause = (pause * 3 / 2).min(PAUSES.1).max(begun.elapsed() * REST);
        }
        std::future::pending().await
    }

    /// Saves what an engine has left that is not at work any more.
    pub(crate) async fn finish(&mut self) {
        if self.limit > 0 {
            self.save(true).await;
        }
    }

    /// A state that cannot be saved is no reason for a run to fail.
    pub(super) async fn save(&mut self, at_rest: bool) {
        match self.try_to_save(at_rest).await {
            Ok(()) => {}
            Err(why @ Unsaved::TooLarge(_)) => {
                warn!("the engine's state is not saved any more: {why}");
                self.limit = 0;
            }
            Err(Unsaved::Local(why)) if why.kind() == io::ErrorKind::QuotaExceeded => {
                warn!("the engine's state is not saved any more: {why}");
                self.limit = 0;
            }
            Err(why) => warn!("the engine's state is not saved at present: {why}"),
        }
    }

    async fn try_to_save(&mut self, at_rest: bool) -> Result<(), Unsaved> {
        for turn in 0..LOOKS {
            if turn > 0 {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            let before = self.look().await?;
            // An engine that has tidied up, or has not begun, has nothing to go on from; what was
            // saved before may be of use still.
            if !before.files.keys().any(|path| (self.saved.is_guard)(path)) {
                return Ok(());
            }
            if !at_rest && !self.guards_have_settled(&before) {
                continue;
            }
            self.upload(&before, at_rest).await?;
            let after = self.look().await?;
            if self.guards_are_the_same(&before, &after) {
                return self.commit(&before, &after).await;
            }
        }
        Ok(())
    }

    async fn look(&self) -> io::Result<Look> {
        let (root, saved, staged) =
            (self.root.clone(), self.saved.clone(), Arc::clone(&self.staged));
        spawn_blocking(move || look(&root, &saved, &staged))
            .await
            .map_err(io::Error::other)
            .flatten()
    }

    fn guards_have_settled(&self, look: &Look) -> bool {
        let mut guards = look.files.iter().filter(|(path, _)| (self.saved.is_guard)(path));
        guards.all(|(_, version)| look.is_settled(version))
    }

    fn guards_are_the_same(&self, before: &Look, after: &Look) -> bool {
        let guards = |look: &Look| -> Vec<_> {
            let guards = look.files.iter().filter(|(path, _)| (self.saved.is_guard)(path));
            guards.map(|(path, version)| (path.clone(), *version)).collect()
        };
        guards(before) == guards(after)
    }

    /// Uploads what is new or has changed and will not change in this very moment.
    async fn upload(&mut self, look: &Look, at_rest: bool) -> Result<(), Unsaved> {
        let sparse = self.sparse(look);
        let is_kept = |kept: &BTreeMap<String, Kept>, path: &str, version: &Version| {
            kept.get(path)
                .is_some_and(|kept| kept.version == *version && !sparse.contains(&kept.piece))
        };
        let mut pack = Vec::new();
        let mut packed = Vec::new();
        for (path, version) in &look.files {
            let hot = !at_rest && !look.is_settled(version);
            if hot || is_kept(&self.kept, path, version) {
                continue;
            }
            if version.size > SMALL {
                self.upload_file(path, version).await?;
                continue;
            }
            if pack.len() + usize::try_from(version.size).unwrap_or(PACK) > PACK {
                self.upload_pack(std::mem::take(&mut pack), std::mem::take(&mut packed)).await?;
            }
            let (full, root, version) = (self.root.join(path), self.root.clone(), *version);
            let read = spawn_blocking(move || read_small(&root, &full, &version)).await;
            if let Some(content) = read.map_err(io::Error::other)?? {
                let offset = pack.len() as u64;
                pack.extend_from_slice(&content);
                packed.push((path.clone(), version, offset));
            }
        }
        self.upload_pack(pack, packed).await
    }

    /// The packs that hold mostly what is of no use any more.
    fn sparse(&self, look: &Look) -> Vec<u64> {
        let mut used: HashMap<u64, u64> = HashMap::new();
        for (path, kept) in &self.kept {
            if look.files.get(path) == Some(&kept.version) {
                *used.entry(kept.piece).or_default() += kept.version.size;
            }
        }
        self.packs
            .iter()
            .filter(|(piece, size)| {
                used.get(piece).is_some_and(|used| used.saturating_mul(SPARSE) < **size)
            })
            .map(|(piece, _)| *piece)
            .collect()
    }

    /// Takes a number for a piece of that size, which is not used again whatever becomes of it.
    fn piece(&mut self, size: u64) -> Result<u64, Unsaved> {
        let stored = self.stored.saturating_add(size);
        if stored > self.limit {
            return Err(Unsaved::TooLarge(self.limit));
        }
        self.stored = stored;
        self.next += 1;
        Ok(self.next - 1)
    }

    async fn upload_file(&mut self, path: &str, version: &Version) -> Result<(), Unsaved> {
        let piece = self.piece(version.size)?;
        let full = self.root.join(path);
        let key = keys::state_piece(self.run, self.attempt, piece);
        match self.bucket.upload(&key, &full, None).await {
            Ok(uploaded) => {
                // Read while it was being written, it may be of no version at all.
                let now = std::fs::symlink_metadata(&full).map(|data| Version::of(&data));
                if uploaded.size == version.size && now.is_ok_and(|now| now == *version) {
                    let kept = Kept { version: *version, piece, offset: 0 };
                    self.kept.insert(path.to_owned(), kept);
                }
                Ok(())
            }
            // It is gone, or another by now.
            Err(Fault::Local(_)) => Ok(()),
            Err(fault) => Err(fault.into()),
        }
    }

    async fn upload_pack(
        &mut self,
        pack: Vec<u8>,
        packed: Vec<(String, Version, u64)>,
    ) -> Result<(), Unsaved> {
        if packed.is_empty() {
            return Ok(());
        }
        let size = pack.len() as u64;
        let piece = self.piece(size)?;
        let key = keys::state_piece(self.run, self.attempt, piece);
        self.bucket.put(&key, pack.into(), "application/octet-stream").await?;
        self.packs.insert(piece, size);
        for (path, version, offset) in packed {
            self.kept.insert(path, Kept { version, piece, offset });
        }
        Ok(())
    }

    /// Writes the manifest of what stood still between the two looks.
    async fn commit(&mut self, before: &Look, after: &Look) -> Result<(), Unsaved> {
        self.kept.retain(|path, _| after.files.contains_key(path));
        let files = after
            .files
            .iter()
            .filter(|(path, version)| before.files.get(*path) == Some(version))
            .filter_map(|(path, version)| {
                let kept = self.kept.get(path).filter(|kept| kept.version == *version)?;
                Some(SavedFile {
                    path: path.clone(),
                    mode: version.mode,
                    modified: version.modified,
                    size: version.size,
                    piece: kept.piece,
                    offset: kept.offset,
                })
            })
            .collect::<Vec<_>>();
        let guards = after.files.keys().filter(|path| (self.saved.is_guard)(path)).count();
        if guards > files.iter().filter(|file| (self.saved.is_guard)(&file.path)).count() {
            // One of them could not be read.
            return Ok(());
        }
        let folders = after.folders.iter().map(|(path, folder)| SavedFolder {
            path: path.clone(),
            mode: folder.mode,
            modified: folder.modified,
        });
        let links = after.links.iter().filter(|(path, link)| before.links.get(*path) == Some(link));
        let links = links.map(|(path, link)| SavedLink {
            path: path.clone(),
            target: link.target.clone(),
            modified: link.modified,
        });
        let manifest = Manifest {
            run_id: self.run,
            attempt: self.attempt,
            engine: self.engine.to_owned(),
            root: self.root.to_string_lossy().into_owned(),
            folders: folders.collect(),
            links: links.collect(),
            staged: self.staged.list(),
            files,
        };
        let body = serde_json::to_vec(&manifest).map_err(io::Error::other)?;
        if body.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(Unsaved::TooLarge(MAX_MANIFEST_BYTES));
        }
        let hash = Sha1::digest(&body).to_vec();
        if self.written.as_ref() == Some(&hash) {
            return Ok(());
        }
        let key = keys::state_manifest(self.run, self.attempt);
        self.bucket.put(&key, body.into(), "application/json").await?;
        info!("the engine's state is saved: {} files", manifest.files.len());
        self.written = Some(hash);
        Ok(())
    }
}

/// Reads a small file, if it still is of that version.
fn read_small(
    root: &std::path::Path,
    path: &std::path::Path,
    version: &Version,
) -> io::Result<Option<Vec<u8>>> {
    let Ok(file) = reachable::open_below(root, path) else { return Ok(None) };
    let mut content = Vec::with_capacity(usize::try_from(version.size).unwrap_or_default());
    (&file).take(version.size + 1).read_to_end(&mut content)?;
    let is_of_version = Version::of(&file.metadata()?) == *version;
    Ok((is_of_version && content.len() as u64 == version.size).then_some(content))
}
