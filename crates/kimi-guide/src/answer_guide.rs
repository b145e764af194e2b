//! The shape of a whole answer: reasoning, then content or calls, each with what constrains it.
//!
//! It mirrors the output parser of kimi-chat: that one reads what this one allows. Free text costs nothing but a few
//! logits; only content with a format and tool calls are masked token by token.

use std::sync::Arc;

use kimi_chat::OutputStart;
use kimi_engine::{GuideError, TokenGuide};
use kimi_tokens::TokenId;

use crate::header::Header;
use crate::live_grammar::{Accepted, LiveGrammar};
use crate::logits;
use crate::plan::{AnswerPlan, CallRule, CutFlag, GuidedAnswer};
use crate::vocabulary::GuideVocabulary;

/// Tokens after a call's arguments: the end of the call and of the section.
const CALL_TAIL: usize = 2;

/// The guide of one answer.
#[derive(Debug)]
pub(crate) struct AnswerGuide {
    plan: Arc<AnswerPlan>,
    vocabulary: Arc<GuideVocabulary>,
    cut: CutFlag,
    state: State,
    /// Calls that were begun.
    calls: usize,
}

/// Where in the answer it is.
#[derive(Debug)]
enum State {
    /// So many tokens of reasoning were written.
    Reasoning(usize),
    /// Nothing was written after the reasoning; the content's format, if it has one, waits.
    Start(Option<Box<LiveGrammar>>),
    /// Free text.
    Text,
    /// Content with a format.
    Content(Box<LiveGrammar>),
    /// In a tool section, between calls.
    Section,
    /// The id of a call.
    Header(Header),
    /// The arguments of a call.
    Arguments(Box<LiveGrammar>),
    /// After the tool section.
    AfterCalls,
    /// After the end of the message.
    Ended,
}

impl State {
    fn start(plan: &AnswerPlan) -> Self {
        Self::Start(plan.content.as_ref().map(|grammar| Box::new(LiveGrammar::new(grammar))))
    }
}

impl AnswerGuide {
    pub(crate) fn new(answer: &GuidedAnswer) -> Self {
        let state = match answer.plan.start {
            OutputStart::Reasoning => State::Reasoning(0),
            OutputStart::Content => State::start(&answer.plan),
        };
        Self {
            plan: Arc::clone(&answer.plan),
            vocabulary: Arc::clone(&answer.vocabulary),
            cut: answer.cut.clone(),
            state,
            calls: 0,
        }
    }

    fn may_call(&self) -> bool {
        self.plan.calls != CallRule::Forbidden && !self.plan.tools.is_empty()
    }

    fn must_call(&self) -> bool {
        self.plan.calls == CallRule::Required && self.may_call()
    }

    /// Forbids markers that have no place in free text, and the end while something is still owed.
    fn restrict_text(&self, row: &mut [f32], in_reasoning: bool) {
        let markers = &self.vocabulary.markers;
        logits::forbid(
            row,
            &[
                markers.tool_calls_section_end,
                markers.tool_call_begin,
                markers.tool_call_argument_begin,
                markers.tool_call_end,
            ],
        );
        if !self.may_call() {
            logits::forbid(row, &[markers.tool_calls_section_begin]);
        }
        if !in_reasoning {
            logits::forbid(row, &[markers.think, markers.end_think]);
        } else if self.must_call() || self.plan.content.is_some() {
            logits::forbid(row, &self.vocabulary.ends());
        }
    }

    /// Between calls: another one, if it is allowed and there is room for it, or the end of the section.
    fn restrict_section(&self, row: &mut [f32], left: usize) {
        let markers = &self.vocabulary.markers;
        let another = self.calls == 0 || (!self.plan.one_call && self.fitting_tools(left).next().is_some());
        let allowed: &[TokenId] = match (self.calls, another) {
            (0, _) => &[markers.tool_call_begin],
            (_, true) => &[markers.tool_call_begin, markers.tool_calls_section_end],
            (_, false) => &[markers.tool_calls_section_end],
        };
        logits::allow_only(row, allowed);
    }

    /// Tools of which a whole call fits into the tokens that are left, the opening of the call included.
    fn fitting_tools(&self, left: usize) -> impl Iterator<Item = usize> {
        // `functions.` and the number, one token a byte at worst.
        const ID: usize = 24;
        let fits = move |tool: &crate::ToolRule| {
            tool.arguments.shortest.is_some_and(|need| need + tool.name.len() + ID + CALL_TAIL <= left)
        };
        self.plan.tools.iter().enumerate().filter(move |(_, tool)| fits(tool)).map(|(index, _)| index)
    }

    /// The id of the next call: of a tool whose call fits, if there is any.
    fn header(&self, left: usize) -> Header {
        let fitting: Vec<usize> = self.fitting_tools(left).collect();
        let tools = self.plan.tools.iter().enumerate();
        let tools = tools.filter(|(index, _)| fitting.is_empty() || fitting.contains(index));
        Header::new(tools, self.plan.first_call + self.calls)
    }

    /// Books a token of content or arguments; `end` is what ends it when there is no room for more.
    fn accept_live(
        &mut self,
        mut live: Box<LiveGrammar>,
        token: TokenId,
        left: usize,
        into: fn(Box<LiveGrammar>) -> State,
        end: (TokenId, State),
    ) -> Result<(TokenId, State), GuideError> {
        let accepted = live.accept(token, left)?;
        if live.is_cut() {
            self.cut.set();
        }
        Ok(match accepted {
            Accepted::Token(token) => (token, into(live)),
            Accepted::End => end,
        })
    }

    /// The state after `token`, and the token that is used.
    fn next(&mut self, state: State, token: TokenId, left: usize) -> Result<(TokenId, State), GuideError> {
        let markers = self.vocabulary.markers;
        let ends = self.vocabulary.ends().contains(&token);
        let next = match state {
            State::Reasoning(_) if token == markers.end_think => State::start(&self.plan),
            State::Reasoning(_) | State::Start(_) | State::Text
                if token == markers.tool_calls_section_begin =>
            {
                State::Section
            }
            State::Reasoning(_) | State::Start(_) | State::Text | State::Content(_) | State::AfterCalls
                if ends =>
            {
                State::Ended
            }
            State::Reasoning(spent) => State::Reasoning(spent + 1),
            State::Start(None) => State::Text,
            State::Start(Some(live)) | State::Content(live) => {
                return self.accept_live(live, token, left, State::Content, (markers.im_end, State::Ended));
            }
            State::Section if token == markers.tool_call_begin => {
                let header = self.header(left);
                self.calls += 1;
                State::Header(header)
            }
            State::Section if token == markers.tool_calls_section_end => State::AfterCalls,
            State::Header(header) if token == markers.tool_call_argument_begin => match header.tool() {
                Some(tool) => State::Arguments(Box::new(LiveGrammar::new(&self.plan.tools[tool].arguments))),
                None => State::Header(header),
            },
            State::Header(mut header) => {
                header.accept(token, &self.vocabulary);
                State::Header(header)
            }
            State::Arguments(_) if token == markers.tool_call_end => State::Section,
            State::Arguments(live) => {
                let left = left.saturating_sub(CALL_TAIL);
                let end = (markers.tool_call_end, State::Section);
                return self.accept_live(live, token, left, State::Arguments, end);
            }
            other @ (State::Text | State::Section | State::AfterCalls | State::Ended) => other,
        };
        Ok((token, next))
    }
}

impl TokenGuide for AnswerGuide {
    fn restrict(&mut self, row: &mut [f32], left: usize) -> Result<(), GuideError> {
        let (ends, markers) = (self.vocabulary.ends(), self.vocabulary.markers);
        let section = [markers.tool_calls_section_begin];
        let (may_call, must_call) = (self.may_call(), self.must_call());
        match &mut self.state {
            State::Reasoning(spent) if self.plan.thinking_budget.is_some_and(|budget| *spent >= budget) => {
                logits::allow_only(row, &[markers.end_think]);
            }
            State::Reasoning(_) => self.restrict_text(row, true),
            State::Start(_) if must_call => logits::allow_only(row, &section),
            State::Start(Some(live)) => live.restrict(row, &ends, if may_call { &section } else { &[] })?,
            State::Start(None) | State::Text => self.restrict_text(row, false),
            State::Content(live) => live.restrict(row, &ends, &[])?,
            State::Section => self.restrict_section(row, left),
            State::Header(header) => header.restrict(row, &self.vocabulary),
            State::Arguments(live) => live.restrict(row, &[markers.tool_call_end], &[])?,
            State::AfterCalls => logits::allow_only(row, &ends),
            State::Ended => {}
        }
        Ok(())
    }

    fn accept(&mut self, token: TokenId, left: usize) -> Result<TokenId, GuideError> {
        let state = std::mem::replace(&mut self.state, State::Ended);
        let (token, state) = self.next(state, token, left)?;
        self.state = state;
        Ok(token)
    }
}
