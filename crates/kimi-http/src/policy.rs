//! Which rules hold for requests: the open ones, or exactly those of the hosted service.

use std::fmt;
use std::str::FromStr;

/// What an operator chooses with `--contract`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contract {
    /// Every sampling value in range and the extensions of self-hosted servers.
    Open,
    /// The hosted service's rules and error texts, for testing an application before it goes there.
    Moonshot,
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Moonshot => "moonshot",
        })
    }
}

impl FromStr for Contract {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "open" => Ok(Self::Open),
            "moonshot" => Ok(Self::Moonshot),
            other => Err(format!("unknown contract {other:?}; use \"open\" or \"moonshot\"")),
        }
    }
}

/// The differences between the contracts, as values that the one validator reads. Made once at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Sampling values other than the defaults are errors.
    pub(crate) fixed_sampling: bool,
    /// `top_k`, `min_p`, `repetition_penalty`, `logit_bias`, `stop_token_ids`, `ignore_eos`, `return_token_ids`,
    /// `include_stop_str_in_output` and `reasoning_effort` mean something; otherwise they are ignored and a notice says so.
    pub(crate) extensions: bool,
    /// `thinking` with a type or a key the hosted service does not document is an error.
    pub(crate) strict_thinking: bool,
    /// The most tools a request may declare.
    pub(crate) max_tools: usize,
    /// The most stop strings a request may have.
    pub(crate) max_stop_strings: usize,
    /// The most bytes of a stop string.
    pub(crate) max_stop_bytes: usize,
}

impl Policy {
    /// The rules of a contract.
    pub fn of(contract: Contract) -> Self {
        match contract {
            // Agents with several tool servers attached pass the hosted limit easily.
            Contract::Open => Self {
                fixed_sampling: false,
                extensions: true,
                strict_thinking: false,
                max_tools: 1024,
                max_stop_strings: 16,
                max_stop_bytes: 256,
            },
            Contract::Moonshot => Self {
                fixed_sampling: true,
                extensions: false,
                strict_thinking: true,
                max_tools: 128,
                max_stop_strings: 5,
                max_stop_bytes: 32,
            },
        }
    }
}
