package lb

// mersenne is MT19937. Bounded load goes on from a full host in the order that this generator gives
// for the hash, so that it must be the one that Envoy has (std::mt19937).
type mersenne struct {
	state [624]uint32
	at    int
}

func newMersenne(seed uint32) *mersenne {
	m := &mersenne{at: 624}
	m.state[0] = seed
	for i := 1; i < len(m.state); i++ {
		last := m.state[i-1]
		m.state[i] = 1812433253*(last^last>>30) + uint32(i)
	}
	return m
}

func (m *mersenne) next() uint32 {
	if m.at == len(m.state) {
		m.twist()
	}
	y := m.state[m.at]
	m.at++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

func (m *mersenne) twist() {
	s := &m.state
	for i := range s {
		y := s[i]&0x80000000 | s[(i+1)%624]&0x7fffffff
		s[i] = s[(i+397)%624] ^ y>>1
		if y&1 != 0 {
			s[i] ^= 0x9908b0df
		}
	}
	m.at = 0
}

// below returns a number less than k, as evenly as Envoy does.
func (m *mersenne) below(k uint32) uint32 {
	for {
		if x := uint32(uint64(m.next()) / (1 << 32 / uint64(k))); x < k {
			return x
		}
	}
}
