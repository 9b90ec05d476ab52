package xds

import "errors"

var errRejected = errors.New("rejected")
