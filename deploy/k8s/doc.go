// Package k8s has no code: it holds an image recipe and manifests, which its tests check.
package k8s
