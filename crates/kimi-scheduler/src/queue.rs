//! Who is admitted next: the most urgent first, then whoever was served least, then in order of arrival.

use std::collections::{BTreeMap, VecDeque};

use crate::sequence::Sequence;
use crate::{Standing, Tenant};

/// Sequences that hold nothing, and what each tenant was served.
///
/// Fairness is the virtual token counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024): every
/// computed token is charged to its tenant, and the tenant with the smallest account goes first. Whoever had nothing to do
/// begins with the smallest account of those who had, so that nobody saves up for a flood.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// By urgency, then tenant; no list is empty.
    lines: BTreeMap<(i32, Tenant), VecDeque<Sequence>>,
    /// Of the tenants that have a sequence, waiting or running.
    accounts: BTreeMap<Tenant, Account>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Tokens computed for it.
    served: u64,
    /// Sequences it has, waiting and running.
    sequences: usize,
}

impl Queue {
    /// A sequence that has just arrived, behind all others of its tenant and urgency.
    pub(crate) fn arrive(&mut self, sequence: Sequence) {
        let least = self.accounts.values().map(|account| account.served).min().unwrap_or(0);
        let account = self.accounts.entry(sequence.standing.tenant).or_default();
        if account.sequences == 0 {
            account.served = least;
        }
        account.sequences += 1;
        self.line(sequence.standing).push_back(sequence);
    }

    /// A sequence that lost its blocks, before all others of its tenant and urgency.
    pub(crate) fn come_back(&mut self, sequence: Sequence) {
        self.line(sequence.standing).push_front(sequence);
    }

    fn line(&mut self, Standing { priority, tenant }: Standing) -> &mut VecDeque<Sequence> {
        self.lines.entry((priority, tenant)).or_default()
    }

    /// The line whose first sequence is next.
    fn next_line(&self) -> Option<(i32, Tenant)> {
        let ((most_urgent, _), _) = self.lines.first_key_value()?;
        let lines = self.lines.iter().take_while(|((priority, _), _)| priority == most_urgent);
        // Between equal accounts, the earlier arrival.
        let rank = |(key, line): &(&(i32, Tenant), &VecDeque<Sequence>)| {
            (self.accounts[&key.1].served, line.front().map(|first| first.id))
        };
        lines.min_by_key(rank).map(|(key, _)| *key)
    }

    /// The sequence that is next.
    pub(crate) fn next(&self) -> Option<&Sequence> {
        self.lines.get(&self.next_line()?)?.front()
    }

    /// The sequence that is next, to be looked at closely.
    pub(crate) fn next_mut(&mut self) -> Option<&mut Sequence> {
        let line = self.next_line()?;
        self.lines.get_mut(&line)?.front_mut()
    }

    /// Takes out the sequence that is next.
    pub(crate) fn pop(&mut self) -> Option<Sequence> {
        let line = self.next_line()?;
        self.remove_at(line, 0)
    }

    /// Takes out the sequence with this id.
    pub(crate) fn remove(&mut self, id: crate::SequenceId) -> Option<Sequence> {
        let found = self.lines.iter().find_map(|(key, line)| {
            line.iter().position(|sequence| sequence.id == id).map(|index| (*key, index))
        });
        let (line, index) = found?;
        self.remove_at(line, index)
    }

    fn remove_at(&mut self, key: (i32, Tenant), index: usize) -> Option<Sequence> {
        let line = self.lines.get_mut(&key)?;
        let sequence = line.remove(index);
        if line.is_empty() {
            self.lines.remove(&key);
        }
        sequence
    }

    /// Charges computed tokens to a tenant.
    pub(crate) fn charge(&mut self, tenant: Tenant, tokens: usize) {
        if let Some(account) = self.accounts.get_mut(&tenant) {
            account.served += tokens as u64;
        }
    }

    /// Notes that a sequence ended, wherever it was.
    pub(crate) fn leave(&mut self, tenant: Tenant) {
        if let Some(account) = self.accounts.get_mut(&tenant) {
            account.sequences -= 1;
            if account.sequences == 0 {
                self.accounts.remove(&tenant);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.values().map(VecDeque::len).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Sequence> {
        self.lines.values().flatten()
    }

    /// Checks lines and accounts against each other and against what runs.
    ///
    /// # Panics
    /// When they do not fit.
    pub(crate) fn check(&self, running: &[Sequence]) {
        for (key, line) in &self.lines {
            assert!(line.iter().map(|sequence| sequence.id).is_sorted(), "a line is out of arrival order");
            let fits = |s: &Sequence| (s.standing.priority, s.standing.tenant) == *key;
            assert!(!line.is_empty() && line.iter().all(fits), "a sequence is in a wrong line");
        }
        for (tenant, account) in &self.accounts {
            let all = self.iter().chain(running);
            let counted = all.filter(|sequence| sequence.standing.tenant == *tenant).count();
            assert_eq!(account.sequences, counted, "{tenant:?} has another number of sequences");
            assert!(counted > 0, "{tenant:?} has an account and no sequence");
        }
        let known = |sequence: &Sequence| self.accounts.contains_key(&sequence.standing.tenant);
        assert!(self.iter().chain(running).all(known), "a sequence without an account");
    }
}
