//! The interface between the MCP server and the tools.

use async_trait::async_trait;
use greenroom::TaskDetail;
use greenroom::domain::time::Timestamp;
use serde_json::Value;

use crate::tools::scope::Scope;
use crate::tools::{Caller, ToolReply, Tools};

/// Carries out tool calls, in this process or over HTTP.
#[async_trait]
pub trait ToolDispatcher: Send + Sync + 'static {
    /// Carries out a call. Errors of the tool are replies too. A dropped call stops waiting and has no other effect.
    async fn call(&self, tool: &str, arguments: Value, caller: &Caller) -> ToolReply;

    /// Returns the task with this id, unique id prefix or session; none if it does not exist.
    ///
    /// # Errors
    /// The reason why the task cannot be read.
    async fn find(&self, task: &str) -> Result<Option<TaskDetail>, String>;

    /// Returns the current time, by the clock that the times of tasks are compared with.
    fn now(&self) -> Timestamp;

    /// Returns true if the caller may read the task.
    async fn can_read(&self, task: &str, caller: &Caller) -> bool;
}

#[async_trait]
impl ToolDispatcher for Tools {
    async fn call(&self, tool: &str, arguments: Value, caller: &Caller) -> ToolReply {
        Tools::call(self, tool, arguments, caller).await
    }

    async fn find(&self, task: &str) -> Result<Option<TaskDetail>, String> {
        Ok(self.greenroom().find(task).await)
    }

    fn now(&self) -> Timestamp {
        self.greenroom().now()
    }

    async fn can_read(&self, task: &str, caller: &Caller) -> bool {
        let scope = Scope::for_caller(caller.session.as_ref());
        let found = scope.find_readable(self.greenroom(), task, caller.message.as_ref());
        found.await.is_some()
    }
}
