package hcm

import "testing"

// TestState runs every event in every state.
func TestState(t *testing.T) {
	t.Parallel()
	const no = idle // the event has no meaning there
	want := map[state][numEvents]state{
		//         headers, headers+end, data, data+end, trailers, passedEnd, cut
		idle:     {headers, ended, no, no, no, no, finished},
		headers:  {no, no, headers, ended, ended, no, finished},
		ended:    {no, no, no, no, no, finished, finished},
		finished: {no, no, no, no, no, no, finished},
	}
	for from, row := range want {
		for e, to := range row {
			s := from
			moved := s.move(event(e))
			if moved != (to != no) {
				t.Errorf("state %d, event %d: moved %t", from, e, moved)
			}
			if to == no {
				to = from
			}
			if s != to {
				t.Errorf("state %d, event %d: in %d, want %d", from, e, s, to)
			}
		}
	}
}
