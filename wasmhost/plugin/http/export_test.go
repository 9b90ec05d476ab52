package http

// AskRoutes has the filters of a factory look at their routes, as those of the table do whose routes
// were compiled.
func AskRoutes(f *Factory) { f.routes.Store(true) }
