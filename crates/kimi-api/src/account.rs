//! `GET /v1/users/me/balance`.

use schemars::JsonSchema;
use serde::Serialize;

/// The balance of an account. A server of one's own costs nothing, so there is nothing to spend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Balance {
    /// Money that can be spent.
    pub available_balance: f64,
    /// Of vouchers.
    pub voucher_balance: f64,
    /// Of payments.
    pub cash_balance: f64,
}

/// The answer: the balance in the hosted service's envelope.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct BalanceResponse {
    /// 0: no error.
    pub code: i32,
    /// The balance.
    pub data: Balance,
    /// The same code as text.
    pub scode: &'static str,
    /// Whether it went well.
    pub status: bool,
}

impl Default for BalanceResponse {
    fn default() -> Self {
        Self { code: 0, data: Balance::default(), scode: "0x0", status: true }
    }
}
