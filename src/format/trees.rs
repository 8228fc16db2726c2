//! Models of gradient boosting: LightGBM's text, XGBoost's JSON and UBJSON, CatBoost's header. Pure, no I/O.

mod lightgbm;
mod ubjson;
mod xgboost;

pub(super) use lightgbm::FAMILY as LIGHTGBM;
pub(super) use xgboost::FAMILY as XGBOOST;
