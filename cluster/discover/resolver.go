package discover

// Resolver is a placeholder shape; see below.
type Resolver interface{}

func NewResolver(ResolverOptions) Resolver { return nil }
