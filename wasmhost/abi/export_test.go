package abi

// Memory of a VM's guest.
func Memory(v *VM) []byte { return v.in.Memory() }

// EachPair is eachPair.
func EachPair(b string, yield func(name, value string)) error { return eachPair(b, yield) }

// GetShared and SetShared are what the host calls use.
func GetShared(s *Shared, id, key string) ([]byte, uint32, bool) { return s.get(id, key) }

// SetShared stores a value.
func SetShared(s *Shared, id, key string, v []byte, cas uint32) Status { return s.set(id, key, v, cas) }

// EachFunction gives the functions of the ABI with their parameters, as in a signature.
func EachFunction(yield func(name, params string)) {
	for _, f := range hostFuncs {
		yield(f.name, f.params)
	}
}
