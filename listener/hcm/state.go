package hcm

// state is how far one direction of a stream is.
type state uint8

// The states of a direction. They only grow, so a state is also a lower bound.
const (
	idle     state = iota // nothing was received
	headers               // the head was received
	ended                 // everything was received
	finished              // everything was passed on, or no more will be
)

// event is what moves a direction.
type event uint8

// The events of a direction.
const (
	gotHeaders event = iota
	gotHeadersEnd
	gotData
	gotDataEnd
	gotTrailers
	passedEnd // the end was passed to the terminal filter, or to the codec
	cut       // no more of this direction is wanted
	numEvents
)

// next is the transition table of both directions: what is not in it must not happen, and is dropped
// where it comes in.
//
//nolint:gochecknoglobals // immutable table
var next = [finished + 1][numEvents]state{
	idle:     {gotHeaders: headers, gotHeadersEnd: ended, cut: finished},
	headers:  {gotData: headers, gotDataEnd: ended, gotTrailers: ended, cut: finished},
	ended:    {passedEnd: finished, cut: finished},
	finished: {cut: finished},
}

// move makes a transition; false means that the event has no meaning in this state, and the caller
// drops it.
func (s *state) move(e event) bool {
	n := next[*s][e]
	if n == idle {
		return false
	}
	*s = n
	return true
}

func headersEvent(end bool) event {
	if end {
		return gotHeadersEnd
	}
	return gotHeaders
}

func dataEvent(end bool) event {
	if end {
		return gotDataEnd
	}
	return gotData
}
