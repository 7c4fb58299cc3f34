//! Lists and answers the requests of children.

use actix_web::web::{Data, Path};
use greenroom::OpenAsk;
use greenroom::domain::task::{AskAnswer, Task};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::app::Api;
use super::error::ApiError;
use super::input::Body;
use super::operation::Json;

/// Maximum number of questions, and of answers to one question.
const MAX_ANSWERS: usize = 100;
/// Maximum length of one answer, in bytes.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// Open requests.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Asks {
    /// Oldest first.
    asks: Vec<OpenAsk>,
}

/// `GET /v1/asks`: the open requests of all tasks.
pub async fn list(api: Data<Api>) -> Json<Asks> {
    let asks = api.greenroom.asks().await;
    Json(Asks { asks })
}

/// The body of an answer: one of the two.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerBody {
    /// To a permission request `once`, `always` or `reject`; to a question `reject`.
    answer: Option<Answer>,
    /// To a question: for each of its questions in their order the labels chosen, or texts of one's own.
    answers: Option<Vec<Vec<String>>>,
}

/// The answers in one word.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Allowed this time.
    Once,
    /// Allowed from now on.
    Always,
    /// Not allowed.
    Reject,
}

/// What came of an answer.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Answered {
    /// The task, no longer waiting for it.
    task: Task,
}

/// `POST /v1/asks/{askID}`: returns after the agent server has accepted the answer.
pub async fn answer(
    api: Data<Api>,
    id: Path<String>,
    body: Body<AnswerBody>,
) -> Result<Json<Answered>, ApiError> {
    let answer = match (body.0.answer, body.0.answers) {
        (Some(Answer::Once), None) => AskAnswer::Once,
        (Some(Answer::Always), None) => AskAnswer::Always,
        (Some(Answer::Reject), None) => AskAnswer::Reject,
        (None, Some(answers)) => {
            let is_count_valid = |count: usize| (1..=MAX_ANSWERS).contains(&count);
            let is_valid = is_count_valid(answers.len())
                && answers.iter().all(|chosen| {
                    chosen.len() <= MAX_ANSWERS
                        && chosen.iter().all(|text| text.len() <= MAX_ANSWER_BYTES)
                });
            if !is_valid {
                return Err(ApiError::invalid(format!(
                    "answers: 1 to {MAX_ANSWERS} lists of at most {MAX_ANSWERS} texts of at most {MAX_ANSWER_BYTES} bytes"
                )));
            }
            AskAnswer::Answers(answers)
        }
        _ => {
            return Err(ApiError::invalid(
                "answer: give once, always or reject; or answers, to a question",
            ));
        }
    };
    let task = api.greenroom.answer_ask(&id, &answer).await?;
    Ok(Json(Answered { task }))
}
