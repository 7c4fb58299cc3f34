//! Where calls over MCP go.

use async_trait::async_trait;
use greenroom::TaskDetail;
use serde_json::Value;

use crate::tools::reach::Reach;
use crate::tools::{Caller, ToolReply, Tools};

/// The tools, wherever they are.
#[async_trait]
pub trait Desk: Send + Sync + 'static {
    /// Carries out a call; a refusal is a reply too. Dropping the call ends its waiting and nothing else.
    async fn call(&self, tool: &str, arguments: Value, caller: &Caller) -> ToolReply;

    /// The task of that id, unique beginning of an id, or session; none if there is no such task.
    ///
    /// # Errors
    /// It cannot be known; why.
    async fn find(&self, task: &str) -> Result<Option<TaskDetail>, String>;

    /// True if that caller may read the task.
    async fn shows(&self, task: &str, caller: &Caller) -> bool;
}

#[async_trait]
impl Desk for Tools {
    async fn call(&self, tool: &str, arguments: Value, caller: &Caller) -> ToolReply {
        Tools::call(self, tool, arguments, caller).await
    }

    async fn find(&self, task: &str) -> Result<Option<TaskDetail>, String> {
        Ok(self.greenroom().find(task).await)
    }

    async fn shows(&self, task: &str, caller: &Caller) -> bool {
        let reach = Reach::of(caller.session.as_ref());
        reach.find_to_read(self.greenroom(), task).await.is_some()
    }
}
