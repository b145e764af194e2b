//! What one request wants of its answer, with everything compiled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kimi_chat::OutputStart;
use kimi_engine::{GuideSource, TokenGuide};

use crate::Grammar;
use crate::answer_guide::AnswerGuide;
use crate::vocabulary::GuideVocabulary;

/// Whether tools are called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallRule {
    /// The model decides.
    #[default]
    Free,
    /// No call.
    Forbidden,
    /// At least one call, of one of the plan's tools; nothing is said before it.
    Required,
}

/// A tool that may be called.
#[derive(Clone, Debug)]
pub struct ToolRule {
    /// The function's name.
    pub name: String,
    /// What its arguments look like.
    pub arguments: Arc<Grammar>,
}

/// Everything that constrains an answer.
#[derive(Clone, Debug)]
pub struct AnswerPlan {
    /// Where the answer begins.
    pub start: OutputStart,
    /// The reasoning may have so many tokens; then it is closed.
    pub thinking_budget: Option<usize>,
    /// What the content looks like; `None` for free text.
    pub content: Option<Arc<Grammar>>,
    /// Whether tools are called.
    pub calls: CallRule,
    /// The tools that may be called; a plan for a named tool has only that one.
    pub tools: Vec<ToolRule>,
    /// At most one call.
    pub one_call: bool,
    /// The number of the first call: how many were made before in the conversation.
    pub first_call: usize,
}

/// Tells, during and after an answer, whether its end was forced because its tokens ran out: what looks complete was cut.
#[derive(Clone, Debug, Default)]
pub struct CutFlag(Arc<AtomicBool>);

impl CutFlag {
    /// Whether the end was forced.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A plan in the form the engine takes, for one answer.
#[derive(Clone, Debug)]
pub struct GuidedAnswer {
    pub(crate) plan: Arc<AnswerPlan>,
    pub(crate) vocabulary: Arc<GuideVocabulary>,
    pub(crate) cut: CutFlag,
}

impl GuidedAnswer {
    /// Whether the answer's end was forced.
    pub fn cut(&self) -> CutFlag {
        self.cut.clone()
    }

    /// The same plan for another answer.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { cut: CutFlag::default(), ..self.clone() }
    }
}

impl GuideSource for GuidedAnswer {
    fn start(&self) -> Box<dyn TokenGuide> {
        Box::new(AnswerGuide::new(self))
    }

    fn vocabulary_size(&self) -> usize {
        self.vocabulary.len()
    }
}
