//! Models of gradient boosting: LightGBM's text, XGBoost's JSON and UBJSON, CatBoost's FlatBuffer and JSON. Pure, no I/O.

mod catboost;
mod flatbuffer;
mod lightgbm;
mod ubjson;
mod xgboost;

pub(super) use catboost::FAMILY as CATBOOST;
pub(super) use lightgbm::FAMILY as LIGHTGBM;
pub(super) use xgboost::FAMILY as XGBOOST;
