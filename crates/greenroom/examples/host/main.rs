//! An actix-web application that hosts Greenroom: `cargo run -p greenroom --example host`. A route takes the events of
//! the agent server; `echo` stands for the agent server.

mod echo;

use std::sync::Arc;

use actix_web::web::{Data, Json, Path, ServiceConfig, get, post};
use actix_web::{App, HttpResponse, HttpServer};
use greenroom::domain::task::Launch;
use greenroom::ports::journal::MemoryJournal;
use greenroom::{Config, Greenroom, ShutdownMode};

pub use echo::Echo;

/// Accepts a task and returns at once. The task starts when a slot is granted.
async fn launch(greenroom: Data<Greenroom>, launch: Json<Launch>) -> HttpResponse {
    match greenroom.launch(launch.into_inner()).await {
        Ok(task) => HttpResponse::Created().json(task),
        Err(error) => HttpResponse::BadRequest().body(error.to_string()),
    }
}

/// Returns a task by its id or its session.
async fn show(greenroom: Data<Greenroom>, name: Path<String>) -> HttpResponse {
    match greenroom.find(&name).await {
        Some(found) => HttpResponse::Ok().json(found.task),
        None => HttpResponse::NotFound().body("no such task"),
    }
}

/// Takes events of the agent server.
async fn events(greenroom: Data<Greenroom>, events: Json<Vec<serde_json::Value>>) -> HttpResponse {
    for event in events.iter() {
        greenroom.ingest_event_json(event).await;
    }
    HttpResponse::Accepted().finish()
}

pub fn routes(app: &mut ServiceConfig) {
    app.route("/tasks", post().to(launch))
        .route("/tasks/{name}", get().to(show))
        .route("/events", post().to(events));
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let journal = Arc::new(MemoryJournal::default());
    let greenroom = Greenroom::builder(Config::default())
        .server(Arc::new(Echo::default()))
        .journal(journal)
        .start();
    let shared = Data::new(greenroom.clone());
    HttpServer::new(move || App::new().app_data(shared.clone()).configure(routes))
        .bind(("127.0.0.1", 8080))?
        .run()
        .await?;
    greenroom.shutdown(ShutdownMode::Abort).await;
    Ok(())
}
