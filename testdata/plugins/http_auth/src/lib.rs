//! Asks the cluster that its configuration names (default `auth`) whether a request may pass: a call to
//! /auth with the request's path in `x-path`. 200 lets it pass, with `x-auth` from the answer; all else
//! is answered 403, and no answer 503.
use proxy_wasm::traits::*;
use proxy_wasm::types::*;
use std::time::Duration;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> {
        Box::new(Root { cluster: "auth".to_string() })
    });
}}

struct Root {
    cluster: String,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        if size > 0 {
            let bytes = self.get_plugin_configuration().unwrap_or_default();
            self.cluster = String::from_utf8_lossy(&bytes).trim().to_string();
        }
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { cluster: self.cluster.clone() }))
    }
}

struct Stream {
    cluster: String,
}

impl Context for Stream {
    fn on_http_call_response(&mut self, _: u32, _: usize, size: usize, _: usize) {
        match self.get_http_call_response_header(":status").as_deref() {
            Some("200") => {
                let user = self.get_http_call_response_header("x-user").unwrap_or_default();
                self.set_http_request_header("x-auth", Some(&user));
                self.resume_http_request();
            }
            Some(_) => {
                let body = self.get_http_call_response_body(0, size).unwrap_or_default();
                self.send_http_response(403, vec![("x-denied", "yes")], Some(&body));
            }
            None => self.send_http_response(503, vec![], Some(b"no answer from auth\n")),
        }
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let path = self.get_http_request_header(":path").unwrap_or_default();
        let call = self.dispatch_http_call(
            &self.cluster,
            vec![
                (":method", "GET"),
                (":path", "/auth"),
                (":authority", "auth"),
                ("x-path", &path),
            ],
            None,
            vec![],
            Duration::from_secs(5),
        );
        if call.is_err() {
            self.send_http_response(503, vec![], Some(b"auth can't be asked\n"));
        }
        Action::Pause
    }
}
