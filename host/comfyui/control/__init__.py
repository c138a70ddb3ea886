"""What leads a clip through conditioning: ControlNets and SparseCtrl."""
