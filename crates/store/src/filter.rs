//! Which of an owner's runs a list shows.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};
use stepwes_core::{
    run::{RequestSummary, RunId},
    run_state::RunState,
};

use crate::model::ListedRun;

/// Which of an owner's runs a list shows: those that everything in it holds of. The default holds
/// of every run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// One of these states; any when empty.
    pub states: BTreeSet<RunState>,
    /// Each of these tags, as `name:value`.
    pub tags: BTreeSet<String>,
    /// This workflow type, without case.
    pub workflow_type: Option<String>,
    /// This engine, without case.
    pub workflow_engine: Option<String>,
    /// Submitted at this time or later.
    pub created_after: Option<DateTime<Utc>>,
    /// Submitted before this time.
    pub created_before: Option<DateTime<Utc>>,
}

/// The ids that a list may show, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) first: RunId,
    pub(crate) last: RunId,
}

impl Ids {
    pub(crate) fn contains(self, run_id: RunId) -> bool {
        (self.first..=self.last).contains(&run_id)
    }
}

impl RunFilter {
    /// Whether it holds of every run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What tells this filter of this owner's runs from any other: hexadecimal, for page tokens.
    #[must_use]
    pub fn fingerprint(&self, owner: &str) -> String {
        let mut digest = Sha256::new();
        // Each part with its length: no two filters run into one text.
        let mut part = |text: &str| {
            digest.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(text);
        };
        let optional =
            |text: Option<String>| text.map_or_else(String::new, |text| format!("={text}"));
        let lower =
            |text: &Option<String>| optional(text.as_ref().map(|text| text.to_ascii_lowercase()));
        let time = |time: Option<DateTime<Utc>>| {
            optional(time.map(|time| time.timestamp_millis().to_string()))
        };
        part(owner);
        part(&self.states.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(","));
        part(&self.tags.len().to_string());
        self.tags.iter().for_each(|tag| part(tag));
        part(&lower(&self.workflow_type));
        part(&lower(&self.workflow_engine));
        part(&time(self.created_after));
        part(&time(self.created_before));
        hex::encode(&digest.finalize()[..8])
    }

    /// The ids that a page after `after` may show; `None` when there can be none.
    pub(crate) fn ids(&self, after: Option<RunId>) -> Option<Ids> {
        let first = self.created_after.map_or(Some(RunId::MIN), RunId::first_since)?;
        let before = match self.created_before {
            Some(time) => RunId::first_since(time),
            None => None,
        };
        let before = [before, after].into_iter().flatten().min();
        let last = before.map_or(Some(RunId::MAX), RunId::before)?;
        (first <= last).then_some(Ids { first, last })
    }

    /// The states, when it names some and none of them is terminal.
    pub(crate) fn unfinished(&self) -> Option<Vec<RunState>> {
        let unfinished =
            !self.states.is_empty() && !self.states.iter().any(|state| state.is_terminal());
        unfinished.then(|| self.states.iter().copied().collect())
    }

    /// Whether it looks at what an index of runs does not hold.
    pub(crate) const fn looks_at_request(&self) -> bool {
        self.workflow_type.is_some() || self.workflow_engine.is_some()
    }

    /// Whether states and tags hold of a run.
    pub(crate) fn holds_of_listed(&self, run: &ListedRun) -> bool {
        let has_tag = |wanted: &String| {
            run.tags.iter().any(|(name, value)| {
                wanted.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix(':'))
                    == Some(value)
            })
        };
        (self.states.is_empty() || self.states.contains(&run.state))
            && self.tags.iter().all(has_tag)
    }

    /// Whether workflow type and engine hold of a request.
    pub(crate) fn holds_of_request(&self, request: &RequestSummary) -> bool {
        let is = |wanted: &Option<String>, is: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(is))
        };
        is(&self.workflow_type, &request.workflow_type)
            && is(&self.workflow_engine, &request.workflow_engine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use stepwes_core::{IdGenerator as _, RandomIds};

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(ms).expect("a time")
    }

    #[test]
    fn times_bound_the_ids_that_were_made_then() {
        let (after, before) = (at(1_700_000_000_001), at(1_700_000_000_003));
        let filter = RunFilter {
            created_after: Some(after),
            created_before: Some(before),
            ..RunFilter::default()
        };
        let ids = filter.ids(None).expect("some");
        let shown: Vec<_> = (0..5)
            .filter(|ms| ids.contains(RandomIds.run_id(at(1_700_000_000_000 + ms))))
            .collect();
        assert_eq!(shown, [1, 2]);

        let token = RandomIds.run_id(after);
        let rest = filter.ids(Some(token)).expect("some");
        assert!(!rest.contains(token) && rest.first == ids.first);
        assert_eq!(filter.ids(Some(RunId::MIN)), None);
        let swapped = RunFilter {
            created_after: Some(before),
            created_before: Some(after),
            ..RunFilter::default()
        };
        assert_eq!(swapped.ids(None), None);
    }

    #[test]
    fn times_that_no_id_can_have_bound_nothing_or_everything() {
        let (past, future) = (Some(DateTime::<Utc>::MIN_UTC), Some(DateTime::<Utc>::MAX_UTC));
        let of = |created_after, created_before| {
            RunFilter { created_after, created_before, ..RunFilter::default() }.ids(None)
        };
        let all = Some(Ids { first: RunId::MIN, last: RunId::MAX });
        assert_eq!((of(past, None), of(None, future)), (all, all));
        assert_eq!((of(future, None), of(None, past)), (None, None));
        // An id has milliseconds: what is within one belongs to the next.
        let within = at(5) + TimeDelta::microseconds(1);
        assert!(!of(Some(within), None).expect("some").contains(RandomIds.run_id(at(5))));
        assert!(of(None, Some(within)).expect("some").contains(RandomIds.run_id(at(5))));
    }

    #[test]
    fn every_difference_between_filters_shows() {
        let text = |text: &str| Some(text.to_owned());
        let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect();
        let none = RunFilter::default();
        let filters = [
            none.clone(),
            RunFilter { states: [RunState::Running].into(), ..none.clone() },
            RunFilter { states: [RunState::Running, RunState::Queued].into(), ..none.clone() },
            RunFilter { tags: tags(&["a:b"]), ..none.clone() },
            RunFilter { tags: tags(&["a:b", "c:d"]), ..none.clone() },
            RunFilter { tags: tags(&["a:bc:d"]), ..none.clone() },
            RunFilter { workflow_type: text("CWL"), ..none.clone() },
            RunFilter { workflow_engine: text("CWL"), ..none.clone() },
            RunFilter { workflow_type: text(""), ..none.clone() },
            RunFilter { created_after: Some(at(1)), ..none.clone() },
            RunFilter { created_before: Some(at(1)), ..none.clone() },
        ];
        let prints: BTreeSet<_> = filters.iter().map(|filter| filter.fingerprint("ann")).collect();
        assert_eq!(prints.len(), filters.len());
        assert!(!prints.contains(&none.fingerprint("bob")));
        let lower = RunFilter { workflow_type: text("cwl"), ..none.clone() };
        assert_eq!(lower.fingerprint("ann"), filters[6].fingerprint("ann"));
    }
}
