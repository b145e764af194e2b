//! A grammar at work: one text being written, from its first token to its end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kimi_engine::GuideError;
use kimi_tokens::TokenId;
use llguidance::Matcher;
use toktrie::SimpleVob;

use crate::closing::{broken, completion};
use crate::json_scanner::JsonScanner;
use crate::{Grammar, logits};

/// With so many tokens more than the end needs, every token's effect on the way to the end is measured; with more, only
/// now and then.
const MARGIN: usize = 64;
/// Tokens left below which a text whose end was not found is not allowed to grow.
const NEAR: usize = 256;
/// Bytes that a search for the end may go astray beyond those of the shortest text. Everybody waits for it.
const STRAY: usize = 256;

/// One text. All token counts include the token that is about to be chosen.
pub(crate) struct LiveGrammar {
    grammar: Arc<Grammar>,
    matcher: Matcher,
    /// Where in the JSON it is; `None` for formats that are not JSON.
    scanner: Option<JsonScanner>,
    /// Tokens left at which the way to the end is measured next. `None` before the first token.
    due: Option<usize>,
    /// The way to the end, once it must be taken.
    closing: VecDeque<TokenId>,
    /// The end was forced.
    cut: bool,
}

/// What became of a drawn token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// This one is used.
    Token(TokenId),
    /// The text was complete before it and there is no room to let it grow.
    End,
}

impl LiveGrammar {
    pub(crate) fn new(grammar: &Arc<Grammar>) -> Self {
        Self {
            matcher: grammar.matcher(),
            scanner: grammar.is_json.then(JsonScanner::default),
            grammar: Arc::clone(grammar),
            due: None,
            closing: VecDeque::new(),
            cut: false,
        }
    }

    /// Whether the end came because the tokens ran out.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Forbids what cannot come next. `ends` are allowed where the text is complete, `others` always.
    pub(crate) fn restrict(
        &mut self,
        row: &mut [f32],
        ends: &[TokenId],
        others: &[TokenId],
    ) -> Result<(), GuideError> {
        let done = self.try_restrict(row, ends, others);
        self.note(done)
    }

    fn try_restrict(
        &mut self,
        row: &mut [f32],
        ends: &[TokenId],
        others: &[TokenId],
    ) -> Result<(), GuideError> {
        if let Some(&next) = self.closing.front() {
            logits::allow_only(row, &[next]);
            return Ok(());
        }
        if let Some(error) = self.matcher.get_error() {
            return Err(broken(error));
        }
        if self.cut || self.matcher.is_stopped() {
            logits::allow_only(row, ends);
            return Ok(());
        }
        let complete = self.matcher.is_accepting().map_err(broken)?;
        let mut allowed = self.matcher.compute_mask().map_err(broken)?;
        self.limit_number(&mut allowed, complete)?;
        let mut extra = others.to_vec();
        if complete {
            extra.extend_from_slice(ends);
        }
        // The engine marks the end of the text with its own end token; which tokens end it here is not its business.
        allowed.disallow_token(self.grammar.vocabulary.markers.im_end);
        logits::allow(row, &allowed, &extra);
        Ok(())
    }

    /// Books a drawn token, or the one that is used instead. `left` are the tokens this text may still have.
    pub(crate) fn accept(&mut self, token: TokenId, left: usize) -> Result<Accepted, GuideError> {
        let done = self.try_accept(token, left);
        self.note(done)
    }

    fn try_accept(&mut self, token: TokenId, left: usize) -> Result<Accepted, GuideError> {
        let before = self.scanner;
        self.consume(token)?;
        if self.closing.pop_front().is_some() {
            return Ok(Accepted::Token(token));
        }
        let due = *self.due.get_or_insert_with(|| first_measure(self.grammar.shortest, left));
        let left_after = left.saturating_sub(1);
        if left_after > due {
            return Ok(Accepted::Token(token));
        }
        match self.completion(left_after)? {
            Some(end) if end.len() <= left_after => self.due = Some(next_measure(left_after, end.len())),
            None if left_after > NEAR => self.due = Some(left_after - MARGIN / 2),
            Some(_) | None => return self.close_instead(token, left, before),
        }
        Ok(Accepted::Token(token))
    }

    /// Takes the last token back and begins to close, if that can be done from there.
    fn close_instead(
        &mut self,
        token: TokenId,
        left: usize,
        before: Option<JsonScanner>,
    ) -> Result<Accepted, GuideError> {
        self.matcher.rollback(1).map_err(broken)?;
        let after = std::mem::replace(&mut self.scanner, before);
        let end = self.completion(left)?.filter(|end| end.len() <= left);
        let Some(end) = end else {
            // There never was room. The text goes on as the model wants and is cut where the tokens end.
            self.matcher.consume_token(token).map_err(broken)?;
            self.scanner = after;
            self.due = Some(0);
            return Ok(Accepted::Token(token));
        };
        self.cut = true;
        self.closing = end.into();
        let Some(first) = self.closing.pop_front() else { return Ok(Accepted::End) };
        self.consume(first)?;
        Ok(Accepted::Token(first))
    }

    fn consume(&mut self, token: TokenId) -> Result<(), GuideError> {
        self.matcher.consume_token(token).map_err(broken)?;
        if let Some(scanner) = &mut self.scanner {
            scanner.extend(self.grammar.vocabulary.bytes(token));
        }
        Ok(())
    }

    fn completion(&mut self, max_tokens: usize) -> Result<Option<Vec<TokenId>>, GuideError> {
        let stray = STRAY + 8 * self.grammar.shortest.unwrap_or(0);
        completion(&mut self.matcher, self.scanner, &self.grammar.vocabulary, max_tokens, stray)
    }

    /// Keeps a number readable for clients: it ends where it may, else it takes the way to where it may.
    fn limit_number(&mut self, allowed: &mut SimpleVob, complete: bool) -> Result<(), GuideError> {
        let Some(scanner) = self.scanner.filter(|scanner| scanner.in_number()) else { return Ok(()) };
        let vocabulary = &self.grammar.vocabulary;
        let too_long = |token: &TokenId| scanner.number_overflows_with(vocabulary.bytes(*token));
        let overflowing: Vec<TokenId> = allowed.iter().filter(too_long).collect();
        if overflowing.is_empty() {
            return Ok(());
        }
        let mut limited = allowed.clone();
        for &token in &overflowing {
            limited.disallow_token(token);
        }
        if complete || !limited.is_zero() {
            *allowed = limited;
        } else if let Some(&next) = self.completion(NEAR)?.as_deref().and_then(<[TokenId]>::first) {
            // Such as the odd beginning of a number that must be even.
            *allowed = self.grammar.vocabulary.trie().singleton_token_set(next);
        }
        Ok(())
    }

    /// A grammar that became too complex is of no use to the next answer either.
    fn note<T>(&self, done: Result<T, GuideError>) -> Result<T, GuideError> {
        if done.is_err() {
            self.grammar.broken.store(true, Ordering::Relaxed);
        }
        done
    }
}

/// When to measure first: never, if there is no room from the beginning.
fn first_measure(shortest: Option<usize>, left: usize) -> usize {
    match shortest {
        Some(need) if need > left => 0,
        Some(need) => next_measure(left, need),
        None => NEAR,
    }
}

/// When to measure next, with `left` tokens left and an end that takes `need`. A token can open more than it closes, but
/// not eight times its own length every time.
fn next_measure(left: usize, need: usize) -> usize {
    let spare = left.saturating_sub(need);
    left.saturating_sub(1 + spare.saturating_sub(MARGIN) / 8)
}

impl std::fmt::Debug for LiveGrammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveGrammar")
            .field("scanner", &self.scanner)
            .field("cut", &self.cut)
            .finish_non_exhaustive()
    }
}
