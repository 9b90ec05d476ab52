//go:build !linux

package dial

import "errors"

func setSource(_ int, freebind bool) error {
	if freebind {
		return errors.New("freebind needs Linux")
	}
	return nil
}
