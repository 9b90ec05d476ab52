package match

// Some is true of what one of the predicates is true of.
func Some[F ~func(T) bool, T any](list []F) F {
	if len(list) == 1 {
		return list[0]
	}
	return func(v T) bool {
		for _, f := range list {
			if f(v) {
				return true
			}
		}
		return false
	}
}

// Every is true of what all of the predicates are true of.
func Every[F ~func(T) bool, T any](list []F) F {
	if len(list) == 1 {
		return list[0]
	}
	return func(v T) bool {
		for _, f := range list {
			if !f(v) {
				return false
			}
		}
		return true
	}
}
